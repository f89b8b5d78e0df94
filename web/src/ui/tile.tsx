/** One person on the screen. */
import type { ComponentChildren } from "preact";
import { t } from "../i18n/index.ts";
import type { Member } from "../mesh/room.ts";
import type { Media } from "../protocol.ts";
import { Icon } from "./icons.tsx";
import { Picture } from "./media.tsx";

/** Tints for people without a picture. */
const TINTS = 6;

/** Somebody else. */
export function MemberTile({ member }: { member: Member }) {
  return (
    <Tile
      id={member.id}
      name={member.name}
      label={member.name}
      media={member.media}
      picture={member.received.cam}
    >
      <Badge member={member} />
    </Tile>
  );
}

/** Oneself, as in a mirror. */
export function OwnTile(props: { name: string; media: Media; picture: MediaStreamTrack | null }) {
  return <Tile {...props} id="" label={t("room.you")} own />;
}

function Tile(props: {
  id: string;
  name: string;
  label: string;
  media: Media;
  picture: MediaStreamTrack | null;
  own?: boolean;
  children?: ComponentChildren;
}) {
  const { name, label, media, picture, own } = props;
  return (
    <li
      class={`tile tint-${tintOf(name)}`}
      data-testid="tile"
      data-peer={props.id}
      data-name={name}
      data-self={own ? "true" : undefined}
      data-mic={media.mic ? "on" : "off"}
      data-cam={media.cam ? "on" : "off"}
    >
      <span class="initials" aria-hidden="true">
        {initialsOf(name)}
      </span>
      {media.cam && picture && <Picture track={picture} mirrored={own === true} />}
      {props.children}
      <span class="nameplate">
        {!media.mic && (
          <span class="mic-off" role="img" aria-label={t("room.mic-off", { name })}>
            <Icon name="mic-off" />
          </span>
        )}
        <span class="name">{label}</span>
      </span>
    </li>
  );
}

/** Which way the media takes. */
function Badge({ member: { name, link } }: { member: Member }) {
  const path =
    link.state !== "connected"
      ? link.state
      : link.relayed === null
        ? "connecting"
        : link.relayed
          ? "relayed"
          : "direct";
  return (
    <span
      class={`badge ${path}`}
      data-testid="badge"
      data-path={path}
      title={t(`path.${path}.title`, { name })}
    >
      {t(`path.${path}`)}
    </span>
  );
}

/** The first letters of the first and the last word. */
export function initialsOf(name: string): string {
  const words = name.split(/\s+/).filter((word) => word !== "");
  const letters = [words[0], words.length > 1 ? words.at(-1) : undefined];
  return letters
    .map((word) => [...(word ?? "")][0] ?? "")
    .join("")
    .toLocaleUpperCase();
}

function tintOf(name: string): number {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 9973;
  return sum % TINTS;
}
