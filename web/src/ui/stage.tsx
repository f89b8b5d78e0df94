/** Everybody in the room, in tiles that fill the window. */
import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { App } from "../app.ts";
import { t } from "../i18n/index.ts";
import { type TileSize, tileSize } from "./grid.ts";
import { Icon } from "./icons.tsx";
import { copied } from "./invite.ts";
import { MemberTile, OwnTile } from "./tile.tsx";

/** All tiles. Who is alone sees how to invite the others. */
export function Stage({ app, onInvite }: { app: App; onInvite: () => void }) {
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
            <button type="button" class="quiet" onClick={onInvite}>
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
