import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readServerMessage } from "../src/protocol.ts";

const GOLDEN = new URL("../../signaling/tests/wire/", import.meta.url);
const golden = (name: string) => readFileSync(new URL(name, GOLDEN), "utf8");
const fromServer = readdirSync(GOLDEN).filter((name) => name.startsWith("server-"));

describe("a server's message", () => {
  it.each(fromServer)("%s is read without losing a field", (name) => {
    expect(readServerMessage(golden(name))).toEqual(JSON.parse(golden(name)));
  });

  it("has a golden file for every kind of message", () => {
    const tags = fromServer.map((name) => (JSON.parse(golden(name)) as { t: string }).t);
    expect(new Set(tags)).toEqual(
      new Set(["welcome", "joined", "left", "link", "media", "ice", "pong", "error"]),
    );
  });

  it("may carry fields of a later version, which are left out", () => {
    expect(readServerMessage('{"t":"pong","later":1}')).toEqual({ t: "pong" });
  });
});

describe("what is no message is passed over", () => {
  it.each([
    ["no JSON", "{"],
    ["no object", "[]"],
    ["nothing", "null"],
    ["no tag", "{}"],
    ["an unknown tag", '{"t":"later"}'],
    ["a tag that every object has", '{"t":"constructor"}'],
    ["a missing field", '{"t":"left","id":"a"}'],
    ["a field of another type", '{"t":"left","id":1,"reason":"left"}'],
    ["an unknown word", '{"t":"left","id":"a","reason":"bored"}'],
    ["a negative epoch", '{"t":"link","from":"a","epoch":-1,"kind":"reset"}'],
    ["a broken epoch", '{"t":"link","from":"a","epoch":1.5,"kind":"reset"}'],
    ["an unknown kind of link message", '{"t":"link","from":"a","epoch":1,"kind":"later"}'],
    [
      "an offer without a description",
      '{"t":"link","from":"a","epoch":1,"kind":"offer","body":{}}',
    ],
  ])("%s", (_, frame) => {
    expect(readServerMessage(frame)).toBeNull();
  });
});
