/**
 * The page's state and what a person can do with it. Components read the signals and call the
 * actions; everything else happens below.
 */
import { batch, signal } from "@preact/signals";
import type { Kind } from "./devices/ladder.ts";
import { Local, type LocalView } from "./devices/local.ts";
import { Memory, type Store } from "./devices/memory.ts";
import { t } from "./i18n/index.ts";
import type { Clock } from "./mesh/clock.ts";
import { type Member, type MemberStats, Room } from "./mesh/room.ts";
import { type Media, type ServerMessage, VERSION } from "./protocol.ts";
import { newRoom, pathOfRoom, roomOfPath, shownRoom } from "./room-name.ts";
import { type Refusal, Signaling, type Status } from "./signaling.ts";

/** Which of the two pages is shown. */
export type View = "lobby" | "joining" | "room";

/** See the module. */
export class App {
  readonly view = signal<View>("lobby");
  readonly room = signal("");
  readonly name = signal("");
  /** What keeps one from joining, as a sentence; empty if nothing does. */
  readonly error = signal("");
  readonly status = signal<Status>("ended");
  readonly members = signal<readonly Member[]>([]);
  readonly local = signal<LocalView>({
    mic: null,
    cam: null,
    problems: {},
    devices: [],
    asking: false,
  });
  /** The speaker chosen; empty for the browser's default. */
  readonly speaker = signal("");
  /** The browser plays no sound before the person clicks. */
  readonly soundBlocked = signal(false);
  /** What a screen reader says next. */
  readonly announcement = signal("");

  readonly memory: Memory;
  readonly #local: Local;
  readonly #stream = new MediaStream();
  #mesh: Room | null = null;
  #signaling: Signaling | null = null;
  #sent: Media = { mic: false, cam: false };

  constructor(store: Store | null) {
    this.memory = new Memory(store);
    this.name.value = this.memory.name;
    this.room.value = roomOfPath(location.pathname);
    this.#local = new Local({
      source: { devices: navigator.mediaDevices, permission },
      media: navigator.mediaDevices,
      memory: this.memory,
      changed: () => this.#localChanged(),
      lost: (kind, found) => this.say(t(`device.${found ? "replaced" : "lost"}.${kind}`)),
    });
  }

  /** Asks for camera and microphone. */
  async start(): Promise<void> {
    addEventListener("online", () => this.#signaling?.hurry());
    addEventListener("pagehide", () => this.leave());
    await this.#local.start();
    this.speaker.value = this.memory.find("audiooutput", this.local.value.devices)?.deviceId ?? "";
  }

  /** Draws the number of a new room. */
  drawRoom(): void {
    this.room.value = newRoom((values) => crypto.getRandomValues(values));
    this.error.value = "";
  }

  /** Enters the room that is typed under the name that is typed. */
  join(): void {
    const name = this.name.value.trim();
    const room = this.room.value.trim();
    this.error.value = obstacle(name, room);
    if (this.error.value !== "") return;
    this.memory.name = name;
    this.view.value = "joining";

    const mesh = new Room({
      clock: CLOCK,
      random: Math.random,
      connect: (configuration) => new RTCPeerConnection({ ...configuration, ...relayOnly() }),
      stream: this.#stream,
      send: (message) => this.#signaling?.send(message),
      changed: () => this.#meshChanged(),
    });
    this.#mesh = mesh;
    this.#localChanged();
    this.#signaling = new Signaling({
      clock: CLOCK,
      random: Math.random,
      open: () => new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws`),
      hello: () => ({ t: "hello", v: VERSION, room, name, media: this.#sent }),
      message: (message) => this.#receive(message, mesh),
      status: (status) => {
        this.status.value = status;
      },
      refused: (refusal) => this.#refused(refusal),
    });
    this.#signaling.start();
  }

  /** Goes back to the lobby. */
  leave(): void {
    this.#signaling?.leave();
    this.#reset();
    document.title = t("app.name");
  }

  /** Turns the microphone or the camera on or off. */
  async toggle(kind: Kind): Promise<void> {
    const on = this.local.value[kind] === null;
    await this.#local.set(kind, on);
    const now = this.local.value[kind] !== null;
    if (kind === "mic") this.say(t(now ? "live.unmuted" : "live.muted"));
    else this.say(t(now ? "live.camera-on" : "live.camera-off"));
  }

  /** Uses another camera or microphone. */
  choose(kind: Kind, deviceId: string): Promise<void> {
    return this.#local.choose(kind, deviceId);
  }

  /** The camera or microphone in use. */
  chosen(kind: Kind): string | undefined {
    return this.#local.chosen(kind);
  }

  /** Plays everybody on another speaker. */
  chooseSpeaker(deviceId: string): void {
    const device = this.local.value.devices.find(
      (each) => each.kind === "audiooutput" && each.deviceId === deviceId,
    );
    if (device) this.memory.remember(device);
    this.speaker.value = deviceId;
  }

  /** Has a screen reader say something, politely. */
  say(sentence: string): void {
    this.announcement.value = sentence;
  }

  /** Statistics of every link, for tests and for curious people. */
  links(): Promise<MemberStats[]> {
    return this.#mesh?.stats() ?? Promise.resolve([]);
  }

  #receive(message: ServerMessage, mesh: Room): void {
    if (message.t === "welcome") {
      batch(() => {
        this.room.value = shownRoom(message.room);
        this.view.value = "room";
      });
      history.replaceState(null, "", pathOfRoom(message.room) + location.search);
      document.title = `${this.room.value} · ${t("app.name")}`;
    }
    if (message.t === "joined") this.say(t("live.joined", { name: message.peer.name }));
    if (message.t === "left" && message.reason === "left") {
      const gone = this.members.value.find((member) => member.id === message.id);
      if (gone) this.say(t("live.left", { name: gone.name }));
    }
    mesh.receive(message);
  }

  #refused({ text }: Refusal): void {
    this.#reset();
    this.error.value = text || t("error.unreachable");
  }

  #reset(): void {
    this.#mesh?.close();
    this.#mesh = null;
    this.#signaling = null;
    batch(() => {
      this.members.value = [];
      this.soundBlocked.value = false;
      this.view.value = "lobby";
    });
  }

  #meshChanged(): void {
    this.members.value = this.#mesh?.members() ?? [];
  }

  /** The tracks go to the links, and what is on to the others. */
  #localChanged(): void {
    const view = this.#local.view;
    this.local.value = view;
    this.#mesh?.setTracks({ mic: view.mic, cam: view.cam });
    const media = { mic: view.mic !== null, cam: view.cam !== null };
    if (media.mic === this.#sent.mic && media.cam === this.#sent.cam) return;
    this.#sent = media;
    this.#signaling?.send({ t: "media", media });
  }
}

const CLOCK: Clock = {
  now: () => performance.now(),
  after: (ms, work) => {
    const timer = setTimeout(work, ms);
    return () => clearTimeout(timer);
  },
};

/** What keeps one from even asking to enter, as a sentence; empty if nothing does. */
function obstacle(name: string, room: string): string {
  if (typeof RTCPeerConnection === "undefined") return t("error.unsupported");
  if (name === "") return t("error.name");
  return room === "" ? t("error.room") : "";
}

/** `?relay=1` sends everything through the relay, to try it out or to hide one's address. */
function relayOnly(): RTCConfiguration {
  const forced = new URLSearchParams(location.search).get("relay") === "1";
  return forced ? { iceTransportPolicy: "relay" } : {};
}

/** Firefox before 131 does not tell; then the person is asked. */
async function permission(kind: Kind): Promise<PermissionState> {
  const name = (kind === "mic" ? "microphone" : "camera") as PermissionName;
  try {
    return (await navigator.permissions.query({ name })).state;
  } catch {
    return "prompt";
  }
}
