import { defineConfig } from "vite";

/** Where `npm run dev` finds the server that answers `/ws` and `/api`. */
const server = process.env["CASTLING_SERVER"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  build: {
    // The server's content security policy forbids inline code, so nothing is inlined.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Chrome and Edge 100, Firefox 115, Safari 15.4.
    target: ["es2022", "chrome100", "firefox115", "safari15.4"],
  },
  server: {
    proxy: {
      "/ws": { target: server, ws: true },
      "/api": server,
    },
  },
  test: { include: ["tests/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
