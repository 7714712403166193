import express from "express";

import { Notes } from "./notes.js";

const notes = new Notes();
const app = express();
app.use(express.json());
app.get("/notes", (_req, res) => {
  res.json(notes.all());
});
app.post("/notes", (req, res) => {
  res.status(201).json(notes.add(String(req.body.text)));
});

const port = Number(process.env.PORT);
const host = process.env.HOST ?? "0.0.0.0";
const server = app.listen(port, host, () => console.log(`notes listens on ${host}:${port}`));
process.on("SIGTERM", () => server.close());
