/** Two peer connections of werift, WebRTC in TypeScript alone, and a data channel that echoes. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { RTCPeerConnection } from "werift";
import { exchanged, MESSAGES, payload, run, task, untilToldToStop } from "./lines.mjs";

await run(async () => {
  const [one, two] = [connection(), connection()];
  trickle(one, two);
  trickle(two, one);
  two.onDataChannel.subscribe((channel) => {
    channel.onMessage.subscribe((bytes) => channel.send(bytes));
  });
  const channel = one.createDataChannel("echo");
  const open = new Promise((resolve, reject) => {
    channel.stateChanged.subscribe((state) => state === "open" && resolve());
    one.connectionStateChange.subscribe(
      (state) => state === "failed" && reject(new Error("no connection")),
    );
  });
  await one.setLocalDescription(await one.createOffer());
  await two.setRemoteDescription(one.localDescription);
  await two.setLocalDescription(await two.createAnswer());
  await one.setRemoteDescription(two.localDescription);
  await open;
  for (let nth = 0; nth < MESSAGES; nth++) {
    const answer = new Promise((resolve) => channel.onMessage.once(resolve));
    channel.send(payload(nth));
    if (!payload(nth).equals(Buffer.from(await answer))) throw new Error(`payload ${nth} differs`);
  }
  const candidates = [one, two].map(
    (end) => end.iceTransports[0].connection.nominated.localCandidate.type,
  );
  exchanged(version(), candidates);
  await untilToldToStop();
  await Promise.all([one.close(), two.close()]);
});

function connection() {
  const { server, port, username, password, transport } = task;
  const scheme = transport === "tls" ? "turns" : "turn";
  const urls = `${scheme}:${server}:${port}?transport=${transport === "udp" ? "udp" : "tcp"}`;
  return new RTCPeerConnection({
    iceServers: [{ urls, username, credential: password }],
    iceTransportPolicy: "relay",
    iceUseIpv6: false,
  });
}

function trickle(from, to) {
  from.onIceCandidate.subscribe((candidate) => candidate && to.addIceCandidate(candidate));
}

function version() {
  const entry = createRequire(import.meta.url).resolve("werift");
  const folder = entry.slice(0, entry.lastIndexOf("/lib/"));
  return JSON.parse(readFileSync(`${folder}/package.json`, "utf8")).version;
}
