/** Which camera, microphone and speaker: in the lobby and in the room. */
import { useId } from "preact/hooks";
import type { App } from "../app.ts";
import type { Kind, Problem } from "../devices/ladder.ts";
import { t } from "../i18n/index.ts";
import { Icon } from "./icons.tsx";

/** All three choices, of which the speaker exists only in some browsers. */
export function Pickers({ app }: { app: App }) {
  const { devices } = app.local.value;
  const withSpeaker = "setSinkId" in HTMLMediaElement.prototype;
  return (
    <div class="pickers">
      <Picker
        label={t("device.cam")}
        testId="camera-select"
        devices={devices.filter((device) => device.kind === "videoinput")}
        chosen={app.chosen("cam")}
        onChoose={(id) => app.choose("cam", id)}
      />
      <Picker
        label={t("device.mic")}
        testId="mic-select"
        devices={devices.filter((device) => device.kind === "audioinput")}
        chosen={app.chosen("mic")}
        onChoose={(id) => app.choose("mic", id)}
      />
      {withSpeaker && (
        <Picker
          label={t("device.speaker")}
          testId="speaker-select"
          devices={devices.filter((device) => device.kind === "audiooutput")}
          chosen={app.speaker.value}
          onChoose={(id) => app.chooseSpeaker(id)}
        />
      )}
    </div>
  );
}

/** Why a device is missing, as one sentence for each reason; `onDismiss` adds a way to hide it. */
export function Problems({ app, onDismiss }: { app: App; onDismiss?: () => void }) {
  const sentences = sentencesFor(app.local.value.problems);
  if (sentences.length === 0) return null;
  return (
    <div class="notice" role="status" data-testid="problem">
      <div>
        {sentences.map((sentence) => (
          <p key={sentence}>{sentence}</p>
        ))}
        {app.view.value !== "room" && <p>{t("lobby.listen")}</p>}
      </div>
      {onDismiss && (
        <button type="button" class="dismiss" aria-label={t("room.dismiss")} onClick={onDismiss}>
          <Icon name="close" />
        </button>
      )}
    </div>
  );
}

/** The sentences for what is missing; the same reason for both devices is said once. */
export function sentencesFor(problems: { readonly [K in Kind]?: Problem }): string[] {
  const { mic, cam } = problems;
  if (mic === "insecure" || cam === "insecure") return [t("problem.insecure")];
  if (mic && mic === cam) return [t(`problem.both.${mic}`)];
  const sentences: string[] = [];
  if (mic) sentences.push(t(`problem.mic.${mic}`));
  if (cam) sentences.push(t(`problem.cam.${cam}`));
  return sentences;
}

function Picker(props: {
  label: string;
  testId: string;
  devices: readonly MediaDeviceInfo[];
  chosen: string | undefined;
  onChoose: (id: string) => void;
}) {
  const id = useId();
  // Before the first permission a browser lists devices without ids: nothing to choose from.
  const devices = props.devices.filter((device) => device.deviceId !== "");
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      <select
        id={id}
        data-testid={props.testId}
        disabled={devices.length === 0}
        value={devices.some((device) => device.deviceId === props.chosen) ? props.chosen : ""}
        onChange={(event) => props.onChoose(event.currentTarget.value)}
      >
        {devices.length === 0 && <option value="">{t("device.none")}</option>}
        {devices.length > 0 && !devices.some((device) => device.deviceId === props.chosen) && (
          <option value="">{t("device.default")}</option>
        )}
        {devices.map((device, index) => (
          <option key={device.deviceId} value={device.deviceId}>
            {device.label || t("device.unnamed", { n: index + 1 })}
          </option>
        ))}
      </select>
    </div>
  );
}
