/** Before the call: who one is, which room, and how one looks. */
import { useComputed } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import type { App } from "../app.ts";
import { meter } from "../devices/meter.ts";
import { t } from "../i18n/index.ts";
import { MediaButtons, useShortcuts } from "./controls.tsx";
import { Mark } from "./icons.tsx";
import { Picture } from "./media.tsx";
import { Pickers, Problems } from "./pickers.tsx";

/** Longest name, in characters; the server holds to it too. */
const NAME_CHARACTERS_MAX = 40;
/** Longest room name, in characters. */
const ROOM_CHARACTERS_MAX = 64;

/** The lobby. */
export function Lobby({ app }: { app: App }) {
  useShortcuts({ M: () => void app.toggle("mic"), V: () => void app.toggle("cam") });
  return (
    <main class="lobby">
      <header class="brand">
        <Mark />
        <span class="wordmark">{t("app.name")}</span>
      </header>
      <div class="lobby-columns">
        <section class="lobby-preview" aria-label={t("lobby.preview")}>
          <Preview app={app} />
        </section>
        <section class="lobby-form">
          <h1>{t("app.tagline")}</h1>
          <p class="promise">{t("app.promise")}</p>
          <Entrance app={app} />
        </section>
        <section class="lobby-devices" aria-label={t("device.title")}>
          <Problems app={app} />
          <Pickers app={app} />
        </section>
      </div>
    </main>
  );
}

function Preview({ app }: { app: App }) {
  const { mic, cam, problems, asking } = app.local.value;
  const caption = asking ? "lobby.asking" : problems.cam ? "lobby.no-camera" : "lobby.camera-off";
  return (
    <div class="preview">
      {cam ? <Picture track={cam} mirrored /> : <p class="preview-empty">{t(caption)}</p>}
      <div class="preview-controls">
        <MediaButtons
          mic={mic !== null}
          cam={cam !== null}
          onToggle={(kind) => void app.toggle(kind)}
        />
      </div>
      {mic && <Level track={mic} />}
    </div>
  );
}

/** The bar that moves when one speaks. */
function Level({ track }: { track: MediaStreamTrack }) {
  const bar = useRef<HTMLDivElement>(null);
  useEffect(
    () => meter(track, (level) => bar.current?.style.setProperty("--level", level.toFixed(2))),
    [track],
  );
  return <div ref={bar} class="level" role="img" aria-label={t("device.level")} />;
}

function Entrance({ app }: { app: App }) {
  const name = useId();
  const room = useId();
  const joining = useComputed(() => app.view.value === "joining").value;
  const error = app.error.value;
  return (
    <form
      class="entrance"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!joining) app.join();
      }}
    >
      <div class="field">
        <label for={name}>{t("lobby.name")}</label>
        <input
          id={name}
          data-testid="name"
          autocomplete="nickname"
          maxLength={NAME_CHARACTERS_MAX}
          placeholder={t("lobby.name.placeholder")}
          value={app.name.value}
          onInput={(event) => {
            app.name.value = event.currentTarget.value;
          }}
        />
      </div>
      <div class="field">
        <label for={room}>{t("lobby.room")}</label>
        <div class="room-row">
          <input
            id={room}
            class="room-number"
            data-testid="room"
            autocomplete="off"
            autocapitalize="none"
            spellcheck={false}
            maxLength={ROOM_CHARACTERS_MAX}
            placeholder={t("lobby.room.placeholder")}
            value={app.room.value}
            onInput={(event) => {
              app.room.value = event.currentTarget.value;
            }}
          />
          <button type="button" class="quiet" data-testid="new-room" onClick={() => app.drawRoom()}>
            {t("lobby.new")}
          </button>
        </div>
      </div>
      {error !== "" && (
        <p class="error" role="alert" data-testid="error">
          {error}
        </p>
      )}
      <button type="submit" class="primary" data-testid="join" aria-disabled={joining}>
        {t(joining ? "lobby.joining" : "lobby.join")}
      </button>
    </form>
  );
}
