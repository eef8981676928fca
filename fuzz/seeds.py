"""Writes what fuzzing begins with: `corpus/wire` out of tests/wire/corpus, `corpus/sql` out of the files of tests/sql and of what was found."""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def write(target, name, content):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def conversation(text):
    """The bytes of the lines that begin with a bar; \\xNN is one."""
    sent = "".join(line[1:] for line in text.splitlines() if line.startswith("|"))
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), sent.encode("ascii"))


def statements(text):
    """What stands between `statement …` or `query …` and the blank line or the `----`."""
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines and re.match(r"(statement|query)\b", lines[0]):
            sql = lines[1 : lines.index("----") if "----" in lines else None]
            if sql:
                yield "\n".join(sql)


for path in sorted((ROOT / "tests/wire/corpus").glob("*.txt")):
    write("wire", path.stem, conversation(path.read_text(encoding="utf-8")))
for path in sorted((ROOT / "tests/sql").glob("*.slt")):
    for number, sql in enumerate(statements(path.read_text(encoding="utf-8"))):
        write("sql", f"{path.stem}-{number}", sql.encode())
found = (ROOT / "server/tests/it/front/found.sql").read_text(encoding="utf-8")
for number, sql in enumerate(found.split("\n\n")[1:]):
    write("sql", f"found-{number}", sql.encode())
