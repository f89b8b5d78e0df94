import { describe, expect, it } from "vitest";
import { plural, t } from "../src/i18n/index.ts";
import { newRoom, pathOfRoom, roomOfPath, shownRoom } from "../src/room-name.ts";
import { ASPECT_MAX, ASPECT_MIN, GAP, tileSize } from "../src/ui/grid.ts";
import { initialsOf } from "../src/ui/tile.tsx";

describe("rooms", () => {
  it("get a number that is shown in two groups", () => {
    expect(newRoom((values) => values.fill(0))).toBe("0000-0000");
    for (const value of [1, 77, 2 ** 31, 2 ** 32 - 1]) {
      expect(newRoom((values) => values.fill(value))).toMatch(/^\d{4}-\d{4}$/);
    }
  });

  it("are shown the same however the number was typed", () => {
    for (const typed of ["48217739", "4821-7739", " 4821 7739 "]) {
      expect(shownRoom(typed)).toBe("4821-7739");
    }
    expect(shownRoom(" Year 7b ")).toBe("Year 7b");
  });

  it("are found in the page's path", () => {
    expect(roomOfPath("/r/48217739")).toBe("4821-7739");
    expect(roomOfPath("/r/year%207b/")).toBe("year 7b");
    for (const path of ["/", "/r/", "/r/a/b", "/r/%ff", "/check"])
      expect(roomOfPath(path)).toBe("");
  });

  it("come back from the path made for them", () => {
    for (const room of ["4821-7739", "Żółw 7/b", "100%"]) {
      expect(roomOfPath(pathOfRoom(room))).toBe(room);
    }
  });
});

describe("tiles", () => {
  const windows = [
    { width: 1240, height: 640 },
    { width: 336, height: 586 },
    { width: 2000, height: 400 },
  ];
  const cases = windows.flatMap((window) =>
    Array.from({ length: 12 }, (_, index) => ({ ...window, count: index + 1 })),
  );

  it.each(cases)("$count fit into $width×$height", ({ count, width, height }) => {
    const tile = tileSize(count, width, height);
    const columns = Math.floor((width + GAP) / (tile.width + GAP));
    const rows = Math.ceil(count / columns);
    expect(rows * tile.height + (rows - 1) * GAP).toBeLessThanOrEqual(height);
    expect(tile.width / tile.height).toBeGreaterThan(ASPECT_MIN - 0.02);
    expect(tile.width / tile.height).toBeLessThan(ASPECT_MAX + 0.02);
  });

  it("rather show whole pictures than fill every corner", () => {
    const { width, height } = tileSize(12, 1240, 580);
    expect(width).toBeGreaterThan(height);
  });

  it("have no size in a window without one", () => {
    expect(tileSize(3, 0, 0)).toEqual({ width: 0, height: 0 });
  });
});

describe("words", () => {
  it("put values into sentences", () => {
    expect(t("live.joined", { name: "Ana" })).toBe("Ana joined");
    expect(t("live.joined", { name: "$& {name}" })).toBe("$& {name} joined");
  });

  it("count", () => {
    expect([plural("room.links", 1), plural("room.links", 3)]).toEqual(["1 link", "3 links"]);
  });

  it("shorten names to initials", () => {
    expect(initialsOf("ana")).toBe("A");
    expect(initialsOf("Ana  Maria Silva")).toBe("AS");
    expect(initialsOf("𝒜lex")).toBe("𝒜");
    expect(initialsOf(" ")).toBe("");
  });
});
