/**
 * Two connections of one page that meet at the relay alone: pictures both ways, and an echo.
 *
 * Argument: JSON with `browser`, `namespace`, the `server`, `port` and `transport` of the relay,
 * `username` and `password`. Tells what was exchanged once and stays until its input ends.
 */

import { Firefox } from "./firefox.ts";
import { run, tell, untilToldToStop } from "./lines.ts";
import { Person } from "./person.ts";

/** Payloads that are sent and echoed, one after the other. */
const MESSAGES = 100;

/** A name of the relay, for those that insist on one. */
const NAME = "relay.castling.test";

interface Task {
  browser: "chromium" | "firefox";
  namespace: string;
  server: string;
  port: number;
  transport: "udp" | "tcp" | "tls";
  username: string;
  password: string;
}

/** A tab of any browser. */
interface Tab {
  version: string;
  /** What it calls the relay. */
  server: string;
  call<A, T>(work: (argument: A) => T | Promise<T>, argument: A): Promise<T>;
  close(): Promise<void>;
}

await run(async () => {
  const task = JSON.parse(process.argv[2] ?? "") as Task;
  const tab = await (task.browser === "firefox" ? firefox(task) : chromium(task));
  try {
    const scheme = task.transport === "tls" ? "turns" : "turn";
    const transport = task.transport === "udp" ? "udp" : "tcp";
    const candidates = await tab.call(exchange, {
      urls: `${scheme}:${tab.server}:${task.port}?transport=${transport}`,
      username: task.username,
      credential: task.password,
      messages: MESSAGES,
    });
    tell({ event: "exchanged", version: tab.version, payloads: MESSAGES, candidates });
    await untilToldToStop();
    await tab.call(async () => {
      const { ends } = globalThis as unknown as { ends: RTCPeerConnection[] };
      for (const end of ends) end.close();
    }, null);
  } finally {
    await tab.close();
  }
});

async function firefox(task: Task): Promise<Tab> {
  if (task.transport !== "tls") {
    return Object.assign(await Firefox.start(task.namespace, {}), { server: task.server });
  }
  // Firefox takes `turns:` with a name alone, never with an address. There is no DNS here.
  const preferences = { "network.dns.forceResolve": task.server };
  const gullible = await Firefox.start(task.namespace, preferences, true);
  return Object.assign(gullible, { server: NAME });
}

async function chromium(task: Task): Promise<Tab> {
  const person = await Person.launch({
    name: "Ana",
    namespace: task.namespace,
    origin: "about:blank",
    devices: "none",
    trusted: false,
    gullible: task.transport === "tls",
  });
  return {
    server: task.server,
    version: person.page.context().browser()?.version() ?? "",
    call: (work, argument) =>
      person.page.evaluate(work as never, argument as never) as Promise<never>,
    close: () => person.close(),
  };
}

/** Runs in the page; answers the types of the candidates that both ends use. */
async function exchange({
  urls,
  username,
  credential,
  messages,
}: {
  urls: string;
  username: string;
  credential: string;
  messages: number;
}): Promise<string[]> {
  const iceServers = [{ urls, username, credential }];
  const one = new RTCPeerConnection({ iceServers, iceTransportPolicy: "relay" });
  const two = new RTCPeerConnection({ iceServers, iceTransportPolicy: "relay" });
  Object.assign(globalThis, { ends: [one, two] });
  one.onicecandidate = ({ candidate }) => candidate && two.addIceCandidate(candidate);
  two.onicecandidate = ({ candidate }) => candidate && one.addIceCandidate(candidate);
  two.ondatachannel = ({ channel }) => {
    channel.onmessage = ({ data }) => channel.send(data);
  };
  const channel = one.createDataChannel("echo");
  channel.binaryType = "arraybuffer";

  // A picture that changes needs no camera, and no page with HTTPS.
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d");
  let frame = 0;
  setInterval(() => pen?.fillRect(++frame % canvas.width, 0, 1, canvas.height), 50);
  const pictures = canvas.captureStream(20);
  for (const end of [one, two]) {
    for (const track of pictures.getTracks()) end.addTrack(track, pictures);
  }

  const open = new Promise((resolve, reject) => {
    channel.onopen = resolve;
    one.onconnectionstatechange = () => {
      if (one.connectionState === "failed") reject(new Error("no connection"));
    };
  });
  await one.setLocalDescription();
  await two.setRemoteDescription(one.localDescription as RTCSessionDescription);
  await two.setLocalDescription();
  await one.setRemoteDescription(two.localDescription as RTCSessionDescription);
  await open;

  for (let nth = 0; nth < messages; nth++) {
    const answer = new Promise<Uint8Array>((resolve) => {
      channel.onmessage = ({ data }) => resolve(new Uint8Array(data));
    });
    const length = 1 + ((nth * 37) % 900);
    channel.send(new Uint8Array(length).fill(nth + 1));
    const came = await answer;
    if (came.length !== length || came.some((byte) => byte !== nth + 1)) {
      throw new Error(`payload ${nth} differs`);
    }
  }

  const types: string[] = [];
  for (const end of [one, two]) {
    for (;;) {
      const stats: Record<string, unknown>[] = [];
      (await end.getStats()).forEach((stat) => {
        stats.push(stat);
      });
      const video = stats.find((it) => it["type"] === "inbound-rtp" && it["kind"] === "video");
      const transport = stats.find((it) => it["type"] === "transport");
      const pair =
        stats.find((it) => it["id"] === transport?.["selectedCandidatePairId"]) ??
        stats.find((it) => it["type"] === "candidate-pair" && it["selected"] === true);
      if (pair && Number(video?.["framesDecoded"]) > 0) {
        // Only the own one: a check may arrive before the other end's candidate, which is then
        // called peer-reflexive.
        const own = stats.find((it) => it["id"] === pair["localCandidateId"]);
        types.push(String(own?.["candidateType"]));
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  return types;
}
