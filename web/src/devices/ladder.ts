/**
 * From both devices down to none: asks for camera and microphone, then for what is left of them.
 *
 * Joining never depends on the outcome. What is missing has a reason, and the reason a sentence.
 */
import { CAPTURE } from "../mesh/planner.ts";

/** What can be captured. */
export type Kind = "mic" | "cam";

/** Why a device is missing. */
export type Problem =
  /** The page was opened without HTTPS, so the browser offers no devices. */
  "insecure" | "blocked" | "missing" | "busy" | "stopped" | "unknown";

/** For each kind the exact device, `null` for the browser's choice, or absent if not wanted. */
export type Wish = { readonly [K in Kind]?: string | null };

/** What came of a wish. */
export interface Acquired {
  readonly mic: MediaStreamTrack | null;
  readonly cam: MediaStreamTrack | null;
  /** For each wanted kind that is missing, why. */
  readonly problems: { readonly [K in Kind]?: Problem };
}

/** The browser's devices; a test passes a double. */
export interface Source {
  /** `undefined` on a page without HTTPS. */
  readonly devices: Pick<MediaDevices, "getUserMedia"> | undefined;
  permission(kind: Kind): Promise<PermissionState>;
}

/** Most times that a person may be asked, and refuse, in one climb down. */
export const REFUSALS_MAX = 2;

const KINDS: readonly Kind[] = ["mic", "cam"];

/** Gets as much of the wish as there is. Never fails. */
export async function acquire(source: Source, wish: Wish): Promise<Acquired> {
  const wanted = KINDS.filter((kind) => wish[kind] !== undefined);
  if (!source.devices) return nothing(wanted, "insecure");

  const problems: { [K in Kind]?: Problem } = {};
  let refusals = 0;
  for (const rung of rungsOf(wanted)) {
    if (refusals >= REFUSALS_MAX) break;
    if (await isDenied(source, rung)) {
      for (const kind of rung) problems[kind] ??= "blocked";
      continue;
    }
    const result = await capture(source.devices, wish, rung);
    if (result instanceof MediaFailure) {
      if (result.problem === "blocked") refusals += 1;
      for (const kind of rung) problems[kind] = result.problem;
      continue;
    }
    const mic = result.getAudioTracks()[0] ?? null;
    const cam = result.getVideoTracks()[0] ?? null;
    if (mic) delete problems.mic;
    if (cam) delete problems.cam;
    return { mic, cam, problems };
  }
  return { mic: null, cam: null, problems };
}

class MediaFailure {
  constructor(readonly problem: Problem) {}
}

function nothing(kinds: readonly Kind[], problem: Problem): Acquired {
  return {
    mic: null,
    cam: null,
    problems: Object.fromEntries(kinds.map((kind) => [kind, problem])),
  };
}

/** Both, the microphone alone, the camera alone. */
function rungsOf(wanted: readonly Kind[]): (readonly Kind[])[] {
  return wanted.length === 2 ? [wanted, ["mic"], ["cam"]] : wanted.map((kind) => [kind]);
}

async function isDenied(source: Source, rung: readonly Kind[]): Promise<boolean> {
  if (rung.length > 1) return false;
  const states = await Promise.all(rung.map((kind) => source.permission(kind)));
  return states.includes("denied");
}

/** The stream, or why there is none. A chosen device that is gone gives way to the default. */
async function capture(
  devices: Pick<MediaDevices, "getUserMedia">,
  wish: Wish,
  rung: readonly Kind[],
): Promise<MediaStream | MediaFailure> {
  try {
    return await devices.getUserMedia(constraintsOf(wish, rung));
  } catch (error) {
    if (!isNamed(error, "OverconstrainedError")) return new MediaFailure(problemOf(error));
  }
  try {
    return await devices.getUserMedia(constraintsOf({}, rung));
  } catch (error) {
    return new MediaFailure(problemOf(error));
  }
}

function constraintsOf(wish: Wish, rung: readonly Kind[]): MediaStreamConstraints {
  const exact = (kind: Kind) => (wish[kind] ? { deviceId: { exact: wish[kind] } } : {});
  const audio = {
    ...exact("mic"),
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
  };
  const video = {
    ...exact("cam"),
    width: { ideal: CAPTURE.width },
    height: { ideal: CAPTURE.height },
    frameRate: { ideal: CAPTURE.frameRate, max: CAPTURE.frameRate },
  };
  return {
    ...(rung.includes("mic") ? { audio } : {}),
    ...(rung.includes("cam") ? { video } : {}),
  };
}

function isNamed(error: unknown, name: string): boolean {
  return typeof error === "object" && error !== null && (error as { name?: unknown }).name === name;
}

/** Why `getUserMedia` failed, from the name of its error. */
export function problemOf(error: unknown): Problem {
  if (isNamed(error, "NotAllowedError")) return "blocked";
  if (isNamed(error, "SecurityError")) return "insecure";
  if (isNamed(error, "NotFoundError") || isNamed(error, "OverconstrainedError")) return "missing";
  if (isNamed(error, "NotReadableError")) return "busy";
  if (isNamed(error, "AbortError")) return "stopped";
  return "unknown";
}
