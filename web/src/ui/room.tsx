/** The call. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { App } from "../app.ts";
import type { LocalView } from "../devices/local.ts";
import { plural, t } from "../i18n/index.ts";
import { MediaButtons, RoundButton, useShortcuts } from "./controls.tsx";
import { Dialog } from "./dialog.tsx";
import { Icon, Mark } from "./icons.tsx";
import { copied, copyLink, linkTo } from "./invite.ts";
import { Voice } from "./media.tsx";
import { Pickers, Problems } from "./pickers.tsx";
import { Stage } from "./stage.tsx";
import { useWakeLock } from "./wake-lock.ts";

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
  const invite = () =>
    void copyLink(app, () => {
      dialog.value = "link";
    });
  return (
    <main class="room">
      <Header app={app} />
      <Notices app={app} />
      <Stage app={app} onInvite={invite} />
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
          onPress={invite}
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
          <input
            readOnly
            aria-label={t("room.link")}
            value={linkTo(app)}
            onFocus={(event) => event.currentTarget.select()}
          />
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
