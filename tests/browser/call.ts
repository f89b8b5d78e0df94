/**
 * Everybody joins one room and stays. When every pair is connected and shows moving video, says
 * `ready`, and from then on what every page knows about its links, until told to stop.
 *
 * Argument: JSON with `room`, `video` and `people`.
 */

import { FirefoxPerson } from "./firefox-person.ts";
import { run, tell, until, untilToldToStop } from "./lines.ts";
import { type Caller, type LinkView, Person, type Setup } from "./person.ts";

interface Call {
  room: string;
  /** Whether pictures must move, or sound alone flows. */
  video: boolean;
  people: Setup[];
}

/** How long a full mesh may take on a busy machine. */
const CONNECTED_MS = 60_000;
/** Time between two samples of a page. */
const SAMPLE_MS = 250;

await run(async () => {
  const call = JSON.parse(process.argv[2] ?? "") as Call;
  const people = await Promise.all(call.people.map(launch));
  try {
    // One after the other, so that it is known who is the later one of each pair.
    for (const person of people) await person.join(call.room);
    await Promise.all(people.map((person) => everythingMoves(person, call)));
    tell({ event: "ready" });
    let stopped = false;
    const stop = untilToldToStop().then(() => {
      stopped = true;
    });
    const watch = async (person: Caller, index: number) => {
      while (!stopped) {
        tell({ event: "sample", person: index, ...(await person.sample()) });
        await Promise.race([stop, new Promise((resolve) => setTimeout(resolve, SAMPLE_MS))]);
      }
    };
    await Promise.all(people.map(watch));
    for (const person of people) {
      if (person.complaints.length > 0) {
        tell({ event: "complaints", name: person.setup.name, lines: person.complaints });
      }
    }
  } finally {
    await Promise.all(people.map((person) => person.close()));
  }
});

function launch(setup: Setup): Promise<Caller> {
  return setup.browser === "firefox" ? FirefoxPerson.launch(setup) : Person.launch(setup);
}

/** Waits until each of the others is connected, and its pictures advance. */
async function everythingMoves(person: Caller, call: Call): Promise<void> {
  const others = call.people.length - 1;
  let last: LinkView[] = [];
  try {
    const progress = (link: LinkView) => (call.video ? link.framesDecoded : link.bytesReceived);
    const first = await until("connected", CONNECTED_MS, async () => {
      last = (await person.sample()).links;
      const up = last.filter((link) => link.state === "connected" && progress(link) > 0);
      return up.length === others ? up : undefined;
    });
    await until("moving", CONNECTED_MS, async () => {
      last = (await person.sample()).links;
      const moved = last.filter((link) => {
        const before = first.find((other) => other.peer === link.peer);
        return before !== undefined && progress(link) > progress(before);
      });
      return moved.length === others ? moved : undefined;
    });
  } catch (error) {
    const seen = last.map((link) => `${link.name} ${link.state} ${link.framesDecoded} frames`);
    const lines = [`${person.setup.name}: ${error}; links: ${seen.join(", ") || "none"}`];
    throw new Error([...lines, ...person.complaints].join("\n"));
  }
}
