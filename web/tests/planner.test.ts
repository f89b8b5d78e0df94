import { describe, expect, it } from "vitest";
import { AUDIO_BPS, budget, CAPTURE, UPLINK_BPS } from "../src/mesh/planner.ts";

const PEOPLE = Array.from({ length: 12 }, (_, index) => index + 1);

describe("the budget of a link", () => {
  it.each(PEOPLE.slice(1))("keeps all links of %i people within the uplink", (people) => {
    const { audioBps, videoBps } = budget(people);
    expect((people - 1) * (audioBps + videoBps)).toBeLessThanOrEqual(UPLINK_BPS);
    expect(videoBps).toBeGreaterThan(0);
  });

  it("never rises when somebody joins", () => {
    for (const people of PEOPLE.slice(1)) {
      const [before, after] = [budget(people - 1), budget(people)];
      expect(after.videoBps).toBeLessThanOrEqual(before.videoBps);
      expect(after.height).toBeLessThanOrEqual(before.height);
      expect(after.framesPerSecond).toBeLessThanOrEqual(before.framesPerSecond);
    }
  });

  it("gives a voice the same in every room", () => {
    for (const people of PEOPLE) expect(budget(people).audioBps).toBe(AUDIO_BPS);
  });

  it("sends what the camera captures to one other person", () => {
    expect(budget(2)).toMatchObject({ height: CAPTURE.height, videoBps: 1_200_000 });
  });
});
