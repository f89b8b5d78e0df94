/** Joins standard input and output to a port of this namespace's loopback, given as argument. */

import { connect } from "node:net";

const socket = connect(Number(process.argv[2]), "127.0.0.1");
process.stdin.pipe(socket).pipe(process.stdout);
socket.on("close", () => process.exit(0)).on("error", () => process.exit(1));
