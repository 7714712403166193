export interface Note {
  id: number;
  text: string;
}

/** Notes keeps what it is told for as long as the process lives. */
export class Notes {
  private readonly kept: Note[] = [];

  add(text: string): Note {
    const note = { id: this.kept.length + 1, text };
    this.kept.push(note);
    return note;
  }

  all(): readonly Note[] {
    return this.kept;
  }
}
