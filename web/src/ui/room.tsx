/** The call. */
import { signal, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { App } from "../app.ts";
import type { LocalView } from "../devices/local.ts";
import { plural, t } from "../i18n/index.ts";
import { pathOfRoom } from "../room-name.ts";
import { MediaButtons, RoundButton, useShortcuts } from "./controls.tsx";
import { Dialog } from "./dialog.tsx";
import { type TileSize, tileSize } from "./grid.ts";
import { Icon, Mark } from "./icons.tsx";
import { Voice } from "./media.tsx";
import { Pickers, Problems } from "./pickers.tsx";
import { MemberTile, OwnTile } from "./tile.tsx";

/** How long "Link copied" is shown, in milliseconds. */
const COPIED_MS = 2_000;

/** The call. */
export function Room({ app }: { app: App }) {
  const dialog = useSignal<"devices" | "link" | null>(null);
  useShortcuts({
    M: () => void app.toggle("mic"),
    V: () => void app.toggle("cam"),
    L: () => app.leave(),
  });
  useWakeLock();
  const { mic, cam } = app.local.value;
  const close = () => {
    dialog.value = null;
  };
  return (
    <main class="room">
      <Header app={app} />
      <Notices app={app} />
      <Stage
        app={app}
        onLink={() =>
          copyLink(app, () => {
            dialog.value = "link";
          })
        }
      />
      <nav class="controls" aria-label={t("room.controls")}>
        <MediaButtons
          mic={mic !== null}
          cam={cam !== null}
          onToggle={(kind) => void app.toggle(kind)}
        />
        <RoundButton
          icon="devices"
          label={t("room.devices")}
          title={t("device.title")}
          testId="devices"
          onPress={() => {
            dialog.value = "devices";
          }}
        />
        <RoundButton
          icon={copied.value ? "check" : "link"}
          label={t("room.copy")}
          testId="copy"
          onPress={() =>
            copyLink(app, () => {
              dialog.value = "link";
            })
          }
        />
        <RoundButton
          icon="leave"
          label={t("room.leave")}
          testId="leave"
          shortcut="Alt+L"
          danger
          onPress={() => app.leave()}
        />
      </nav>
      <Voices app={app} />
      {dialog.value === "devices" && (
        <Dialog title={t("device.title")} onClose={close}>
          <Problems app={app} />
          <Pickers app={app} />
        </Dialog>
      )}
      {dialog.value === "link" && (
        <Dialog title={t("room.link")} onClose={close}>
          <input readOnly value={linkTo(app)} onFocus={(event) => event.currentTarget.select()} />
        </Dialog>
      )}
    </main>
  );
}

function Header({ app }: { app: App }) {
  const heading = useRef<HTMLHeadingElement>(null);
  // The button that had the focus is gone with the lobby.
  useEffect(() => heading.current?.focus(), []);
  const members = app.members.value;
  const relayed = members.filter(({ link }) => link.state === "connected" && link.relayed === true);
  return (
    <header class="room-header">
      <Mark />
      <h1 ref={heading} tabIndex={-1} class="room-number">
        {app.room.value}
      </h1>
      {members.length > 0 && (
        <p class="links" data-testid="links">
          {plural("room.links", members.length)}, {t("room.relayed", { relayed: relayed.length })}
        </p>
      )}
    </header>
  );
}

/** What everybody in the room has to know now. */
function Notices({ app }: { app: App }) {
  const dismissed = useSignal<LocalView["problems"] | null>(null);
  const trouble = app.members.value.find((member) => member.trouble)?.trouble;
  return (
    <div class="notices">
      {app.soundBlocked.value && (
        <button
          type="button"
          class="primary"
          data-testid="hear"
          onClick={() => {
            app.soundBlocked.value = false;
          }}
        >
          <Icon name="sound" /> {t("room.hear")}
        </button>
      )}
      {trouble && (
        <p class="notice" role="status" data-testid="notice">
          {t(`relay.${trouble}`)}
        </p>
      )}
      {app.status.value === "retrying" && (
        <p class="notice" role="status" data-testid="retrying">
          {t("room.retrying")}
        </p>
      )}
      {app.local.value.problems !== dismissed.value && (
        <Problems
          app={app}
          onDismiss={() => {
            dismissed.value = app.local.value.problems;
          }}
        />
      )}
    </div>
  );
}

function Stage({ app, onLink }: { app: App; onLink: () => void }) {
  const stage = useRef<HTMLUListElement>(null);
  const members = app.members.value;
  const alone = members.length === 0;
  const size = useTileSize(stage, alone ? 2 : members.length + 1);
  const { mic, cam } = app.local.value;
  return (
    <ul
      ref={stage}
      class="stage"
      aria-label={t("room.people")}
      style={{ "--tile-width": `${size.width}px`, "--tile-height": `${size.height}px` }}
    >
      {members.map((member) => (
        <MemberTile key={member.name} member={member} />
      ))}
      {alone && (
        <li class="tile invitation">
          <div class="invitation-card">
            <p>{t("room.alone")}</p>
            <p class="room-number">{app.room.value}</p>
            <p>{t("room.invite")}</p>
            <button type="button" class="quiet" onClick={onLink}>
              <Icon name={copied.value ? "check" : "link"} />{" "}
              {t(copied.value ? "room.copied" : "room.copy")}
            </button>
          </div>
        </li>
      )}
      <OwnTile
        name={app.name.value.trim()}
        media={{ mic: mic !== null, cam: cam !== null }}
        picture={cam}
      />
    </ul>
  );
}

function Voices({ app }: { app: App }) {
  const blocked = app.soundBlocked.value;
  return (
    <>
      {app.members.value.map(
        ({ name, received }) =>
          received.mic && (
            <Voice
              key={name}
              track={received.mic}
              speaker={app.speaker.value}
              unblocked={!blocked}
              onBlocked={() => {
                app.soundBlocked.value = true;
              }}
            />
          ),
      )}
    </>
  );
}

const copied = signal(false);

function linkTo(app: App): string {
  return location.origin + pathOfRoom(app.room.value);
}

/** Copies the link, or shows it where the browser forbids copying. */
async function copyLink(app: App, show: () => void): Promise<void> {
  try {
    await navigator.clipboard.writeText(linkTo(app));
  } catch {
    return show();
  }
  app.say(t("room.copied"));
  copied.value = true;
  setTimeout(() => {
    copied.value = false;
  }, COPIED_MS);
}

function useTileSize(stage: { current: HTMLElement | null }, count: number): TileSize {
  const size = useSignal<TileSize>({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = stage.current;
    if (!element) return;
    const measure = () => {
      const next = tileSize(count, element.clientWidth, element.clientHeight);
      const { width, height } = size.peek();
      if (next.width !== width || next.height !== height) size.value = next;
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [count]);
  return size.value;
}

/** Keeps the screen on during the call, where the browser can. */
function useWakeLock(): void {
  useEffect(() => {
    let lock: WakeLockSentinel | undefined;
    let over = false;
    const request = async () => {
      if (document.visibilityState !== "visible" || over) return;
      // Refused on low battery: then the screen goes dark as usual.
      lock = await navigator.wakeLock?.request("screen").catch(() => undefined);
      if (over) void lock?.release();
    };
    void request();
    document.addEventListener("visibilitychange", request);
    return () => {
      over = true;
      document.removeEventListener("visibilitychange", request);
      void lock?.release();
    };
  }, []);
}
