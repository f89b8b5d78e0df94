/** The round buttons, and the keys that press them. */
import { useEffect } from "preact/hooks";
import { t } from "../i18n/index.ts";
import { Icon, type IconName } from "./icons.tsx";

/**
 * A round button with its word below. `pressed` makes it a switch: the word names what pressing
 * does and stays the same, as screen readers add whether it is pressed.
 */
export function RoundButton(props: {
  icon: IconName;
  label: string;
  title?: string;
  testId: string;
  shortcut?: string;
  pressed?: boolean;
  danger?: boolean;
  onPress: () => void;
}) {
  const keys = props.shortcut ? ` (${props.shortcut})` : "";
  return (
    <button
      type="button"
      class={props.danger ? "round danger" : "round"}
      data-testid={props.testId}
      aria-pressed={props.pressed}
      aria-keyshortcuts={props.shortcut}
      title={(props.title ?? props.label) + keys}
      onClick={props.onPress}
    >
      <span class="disc">
        <Icon name={props.icon} />
      </span>
      <span class="word">{props.label}</span>
    </button>
  );
}

/** Microphone and camera, as in the lobby and in the room. */
export function MediaButtons(props: {
  mic: boolean;
  cam: boolean;
  onToggle: (kind: "mic" | "cam") => void;
}) {
  const { mic, cam, onToggle } = props;
  return (
    <>
      <RoundButton
        icon={mic ? "mic" : "mic-off"}
        label={t("room.mute")}
        title={t(mic ? "room.mute.off" : "room.mute.on")}
        testId="mute"
        shortcut="Alt+M"
        pressed={!mic}
        onPress={() => onToggle("mic")}
      />
      <RoundButton
        icon={cam ? "cam" : "cam-off"}
        label={t("room.camera")}
        title={t(cam ? "room.camera.off" : "room.camera.on")}
        testId="camera"
        shortcut="Alt+V"
        pressed={!cam}
        onPress={() => onToggle("cam")}
      />
    </>
  );
}

/** Calls the action of the letter that is pressed together with Alt. */
export function useShortcuts(actions: Readonly<Record<string, () => void>>): void {
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (!event.altKey || event.ctrlKey || event.metaKey || event.repeat) return;
      // By the place on the keyboard: with Alt, some keyboards type another character.
      const action = actions[event.code.replace(/^Key/, "")];
      if (!action) return;
      event.preventDefault();
      action();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });
}
