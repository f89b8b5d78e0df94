/**
 * How much each link may send, by the number of people: the uplink of a home connection is
 * shared by all links, and every link has an encoder of its own.
 */

/** What one person's camera, microphone and links may use together, in bit/s. */
export const UPLINK_BPS = 1_600_000;
/** Opus for speech, in bit/s. Audio is served before video. */
export const AUDIO_BPS = 24_000;
/** The camera is captured once at this size and rate; links send less by scaling down. */
export const CAPTURE = { width: 640, height: 480, frameRate: 20 } as const;

/** What one link may send. */
export interface Budget {
  readonly audioBps: number;
  readonly videoBps: number;
  /** Lines of the picture. */
  readonly height: number;
  readonly framesPerSecond: number;
}

/** Ceilings by people in the room; the first row whose `people` suffices holds. */
const CEILINGS = [
  { people: 2, height: 480, framesPerSecond: 20, videoBps: 1_200_000 },
  { people: 3, height: 480, framesPerSecond: 20, videoBps: 700_000 },
  { people: 4, height: 360, framesPerSecond: 20, videoBps: 450_000 },
  { people: 6, height: 360, framesPerSecond: 15, videoBps: 300_000 },
  { people: 8, height: 240, framesPerSecond: 15, videoBps: 200_000 },
] as const;
const CROWD = { height: 180, framesPerSecond: 10, videoBps: 100_000 } as const;

/** The budget of one link in a room of `people`, oneself included. */
export function budget(people: number): Budget {
  const links = Math.max(1, people - 1);
  const share = Math.max(0, Math.floor(UPLINK_BPS / links) - AUDIO_BPS);
  const ceiling = CEILINGS.find((row) => people <= row.people) ?? CROWD;
  return {
    audioBps: AUDIO_BPS,
    videoBps: Math.min(share, ceiling.videoBps),
    height: Math.min(ceiling.height, CAPTURE.height),
    framesPerSecond: Math.min(ceiling.framesPerSecond, CAPTURE.frameRate),
  };
}
