/** The page's sentences, in one flat file per language. */
import en from "./en.json" with { type: "json" };

/** A sentence's key. */
export type Key = keyof typeof en;

/** The sentence of `key`, with `{word}` replaced by `values.word`. */
export function t(key: Key, values: Readonly<Record<string, string | number>> = {}): string {
  return en[key].replace(/\{(\w+)\}/g, (whole, word: string) => String(values[word] ?? whole));
}

const plurals = new Intl.PluralRules("en");

/** The sentence of `key` for this many, which stands in it as `{count}`. */
export function plural(key: "room.links", count: number): string {
  return t(`${key}.${plurals.select(count) === "one" ? "one" : "other"}`, { count });
}
