import assert from "node:assert/strict";
import test from "node:test";

import { Notes } from "./notes.js";

test("notes are numbered", () => {
  const notes = new Notes();
  notes.add("first");
  assert.deepEqual(notes.add("second"), { id: 2, text: "second" });
  assert.equal(notes.all().length, 2);
});
