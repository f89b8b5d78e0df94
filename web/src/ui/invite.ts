/** The link that one sends to the others. */
import { signal } from "@preact/signals";
import type { App } from "../app.ts";
import { t } from "../i18n/index.ts";
import { pathOfRoom } from "../room-name.ts";

/** How long "Link copied" is shown. */
const COPIED_MS = 2_000;

/** The link has just been copied. */
export const copied = signal(false);

/** The link that leads into this room. */
export function linkTo(app: App): string {
  return location.origin + pathOfRoom(app.room.value);
}

/** Copies the link, or shows it where the browser forbids copying. */
export async function copyLink(app: App, show: () => void): Promise<void> {
  try {
    await navigator.clipboard.writeText(linkTo(app));
  } catch {
    return show();
  }
  app.say(t("room.copied"));
  copied.value = true;
  setTimeout(() => {
    copied.value = false;
  }, COPIED_MS);
}
