/** Rooms as people write them: a number that one can say on the telephone, or any name. */

/** Digits of a room's number. */
export const DIGITS = 8;

/** A fresh number, `4821-7739`. `draw` fills the array with random values. */
export function newRoom(draw: (values: Uint32Array<ArrayBuffer>) => void): string {
  const values = new Uint32Array(2);
  draw(values);
  // 53 random bits, so that the remainder favours no number noticeably.
  const number = ((values[0] ?? 0) * 2 ** 21 + ((values[1] ?? 0) >>> 11)) % 10 ** DIGITS;
  return shownRoom(String(number).padStart(DIGITS, "0"));
}

/** A room as it is shown: numbers in two groups, names as they are. */
export function shownRoom(room: string): string {
  const digits = room.replace(/[\s-]/g, "");
  return /^\d{8}$/.test(digits) ? `${digits.slice(0, 4)}-${digits.slice(4)}` : room.trim();
}

/** The room that the page's path names: `/r/<room>`; empty for any other page. */
export function roomOfPath(path: string): string {
  const [, part] = /^\/r\/([^/]+)\/?$/.exec(path) ?? [];
  if (part === undefined) return "";
  try {
    return shownRoom(decodeURIComponent(part));
  } catch {
    return ""; // A broken percent sequence names no room.
  }
}

/** The path of a room. */
export function pathOfRoom(room: string): string {
  return `/r/${encodeURIComponent(shownRoom(room))}`;
}
