/**
 * What the page remembers between visits: the person's name and the devices chosen last.
 *
 * Group ids change with every start of the browser and are never kept.
 */

/** A device that was chosen once. */
export interface Choice {
  readonly deviceId: string;
  readonly label: string;
  readonly kind: MediaDeviceKind;
}

/** The part of `localStorage` that is used. */
export type Store = Pick<Storage, "getItem" | "setItem">;

/** Choices kept for each kind, so that home and school can have one each. */
export const CHOICES_MAX = 3;

const NAME_KEY = "castling.name";
const CHOICES_KEY = "castling.devices";

/** See the module. Without a store, or with one that refuses, it remembers until the page closes. */
export class Memory {
  readonly #store: Store | null;
  #name = "";
  #choices: readonly Choice[] = [];

  constructor(store: Store | null) {
    this.#store = store;
    this.#name = this.#read(NAME_KEY) ?? "";
    this.#choices = readChoices(this.#read(CHOICES_KEY));
  }

  /** What the person was called last; empty at first. */
  get name(): string {
    return this.#name;
  }

  set name(name: string) {
    this.#name = name;
    this.#write(NAME_KEY, name);
  }

  /** The choices of a kind, the latest first. */
  choices(kind: MediaDeviceKind): Choice[] {
    return this.#choices.filter((choice) => choice.kind === kind);
  }

  /** Puts a choice first. */
  remember({ deviceId, label, kind }: Choice): void {
    const others = this.#choices.filter((choice) => choice.kind !== kind);
    const before = this.choices(kind).filter((choice) => choice.deviceId !== deviceId);
    const kept = [{ deviceId, label, kind }, ...before].slice(0, CHOICES_MAX);
    this.#choices = [...kept, ...others];
    this.#write(CHOICES_KEY, JSON.stringify(this.#choices));
  }

  /**
   * The available device that was chosen latest, known by its id or else by its label, as ids
   * change in private windows. `undefined` stands for the browser's default.
   */
  find<D extends Choice>(kind: MediaDeviceKind, available: readonly D[]): D | undefined {
    const devices = available.filter((device) => device.kind === kind && device.deviceId !== "");
    for (const { deviceId, label } of this.choices(kind)) {
      const found =
        devices.find((device) => device.deviceId === deviceId) ??
        devices.find((device) => label !== "" && device.label === label);
      if (found) return found;
    }
    return undefined;
  }

  #read(key: string): string | null {
    try {
      return this.#store?.getItem(key) ?? null;
    } catch {
      return null; // The browser forbids storage: nothing is remembered.
    }
  }

  #write(key: string, value: string): void {
    try {
      this.#store?.setItem(key, value);
    } catch {
      // Full or forbidden: the choice holds until the page closes.
    }
  }
}

function readChoices(text: string | null): Choice[] {
  try {
    const value: unknown = JSON.parse(text ?? "[]");
    return Array.isArray(value) ? value.filter(isChoice) : [];
  } catch {
    return []; // Written by something else: start anew.
  }
}

function isChoice(value: unknown): value is Choice {
  if (typeof value !== "object" || value === null) return false;
  const { deviceId, label, kind } = value as Record<string, unknown>;
  return typeof deviceId === "string" && typeof label === "string" && typeof kind === "string";
}
