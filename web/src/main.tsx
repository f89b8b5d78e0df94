/** Joins the pieces: the state, the two pages, and the read-only view for tests. */
import { render } from "preact";
import { App } from "./app.ts";
import type { MemberStats } from "./mesh/room.ts";
import { Lobby } from "./ui/lobby.tsx";
import { Room } from "./ui/room.tsx";
import "./ui/style.css";

declare global {
  /** What the page tells scripts: the links with their statistics. It changes nothing. */
  var castling: { readonly links: () => Promise<MemberStats[]> };
}

const app = new App(storeOf(() => localStorage));
globalThis.castling = Object.freeze({ links: () => app.links() });

const root = document.getElementById("app");
if (root) render(<Page />, root);
void app.start();

function Page() {
  return (
    <>
      {app.view.value === "room" ? <Room app={app} /> : <Lobby app={app} />}
      <p class="unseen" aria-live="polite">
        {app.announcement.value}
      </p>
    </>
  );
}

/** The browser's store, unless it forbids even to look. */
function storeOf(open: () => Storage): Storage | null {
  try {
    return open();
  } catch {
    return null;
  }
}
