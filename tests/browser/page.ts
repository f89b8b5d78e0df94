/**
 * What a person is told when something is not as it should be. Tells `said` with the sentence on
 * the screen, or fails.
 *
 * Argument: JSON with `check`, `origin` and the `namespaces` of the people, in the order in which
 * they start. The first one sits behind a firewall that lets UDP through to the relay alone.
 */

import { run, tell } from "./lines.ts";
import { Person, type Setup } from "./person.ts";

interface Question {
  check: keyof typeof checks;
  namespaces: string[];
  origin: string;
}

/** Room of every check. */
const ROOM = "4821-7739";

const checks = {
  /** The second Ana must hear why she cannot come in, and can mend it. */
  async sameName(start: Start) {
    const first = await start({ name: "Ana", devices: "none" });
    await first.join(ROOM);
    const second = await start({ name: "ana", devices: "none" });
    await second.open(ROOM);
    await second.askToJoin();
    const text = await second.error();
    expect(text, /\bana\b/i, /already|taken/i);
    await second.page.getByTestId("name").fill("Ana the second");
    await second.page.getByTestId("join").click();
    await second.page.getByTestId("leave").waitFor();
    return text;
  },

  /** A room holds as many people as the server says, and the next one hears of it. */
  async fullRoom(start: Start) {
    const late = await start({ name: "Late", devices: "none" });
    await late.open(ROOM);
    // The others are bare sockets of the same page: it is the door that is tested.
    const members = await late.page.evaluate(
      async ([room, most]) => {
        const sockets: WebSocket[] = [];
        for (let nth = 1; nth <= Number(most); nth++) {
          const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws`);
          const media = { mic: false, cam: false };
          await new Promise((resolve) => socket.addEventListener("open", resolve));
          const answer = new Promise<MessageEvent>((resolve) =>
            socket.addEventListener("message", resolve, { once: true }),
          );
          socket.send(JSON.stringify({ t: "hello", v: 1, room, name: `Pupil ${nth}`, media }));
          const { t, peopleMax } = JSON.parse((await answer).data);
          if (t !== "welcome") throw new Error(`member ${nth}: ${t}`);
          sockets.push(socket);
          if (nth === peopleMax) break;
        }
        Object.assign(globalThis, { kept: sockets });
        return sockets.length;
      },
      [ROOM, 100],
    );
    await late.askToJoin();
    const text = await late.error();
    expect(text, /full|no (more )?(place|room)/i);
    return `after ${members} members: ${text}`;
  },

  /** Without HTTPS a browser has no camera to give. One can still listen. */
  async withoutHttps(start: Start) {
    const person = await start({ name: "Ana", devices: "camera", trusted: false });
    await person.open(ROOM);
    const text = await person.sentence(/https/i);
    await person.askToJoin();
    await person.page.getByTestId("leave").waitFor();
    return text;
  },

  /** A refused camera is named, with what to do, and does not keep one out. */
  async refusedCamera(start: Start) {
    const person = await start({ name: "Ana", devices: "camera", refuse: true });
    await person.open(ROOM);
    const text = await person.sentence(/block|refus|denied|not allow/i);
    expect(text, /camera/i);
    await person.askToJoin();
    await person.page.getByTestId("leave").waitFor();
    return text;
  },

  /** Neither camera nor microphone: the page says so, and one joins as a listener. */
  async noDevices(start: Start) {
    const person = await start({ name: "Ana", devices: "none" });
    await person.open(ROOM);
    const text = await person.sentence(/no camera.*found/i);
    await person.askToJoin();
    await person.page.getByTestId("leave").waitFor();
    return text;
  },

  /**
   * The relay does not accept what the server hands out, and one person cannot do without it:
   * both are told in words.
   */
  async refusedByRelay(start: Start) {
    const first = await start({ name: "Ana", devices: "none" });
    await first.join(ROOM);
    const second = await start({ name: "Ben", devices: "none" });
    await second.join(ROOM);
    const [text] = await Promise.all(
      [first, second].map((person) => person.sentence(/relay.*refused|refused.*relay/i)),
    );
    return text ?? "";
  },
};

type Start = (setup: Omit<Setup, "namespace" | "origin">) => Promise<Person>;

await run(async () => {
  const question = JSON.parse(process.argv[2] ?? "") as Question;
  const { namespaces, origin } = question;
  const people: Person[] = [];
  try {
    const text = await checks[question.check](async (setup) => {
      const namespace = namespaces[people.length];
      if (namespace === undefined) throw new Error("more people than namespaces");
      const person = await Person.launch({ ...setup, namespace, origin });
      people.push(person);
      return person;
    });
    tell({ event: "said", text });
  } catch (error) {
    const complaints = people.flatMap((person) => person.complaints);
    throw new Error([String(error), ...complaints].join("\n"));
  } finally {
    await Promise.all(people.map((person) => person.close()));
  }
});

function expect(text: string, ...patterns: RegExp[]): void {
  const missing = patterns.find((pattern) => !pattern.test(text));
  if (missing) throw new Error(`the page says ${JSON.stringify(text)}, which is not ${missing}`);
}
