# Names that are read in two ways, by a shell, a terminal, an archive or a browser.
import os

names = [b"new\nline", b"carriage\rreturn", b"escape\x1b[31m", b"bell\x07", b"not\xff\xfeutf8", "right\u202eleft".encode(), "zero\u200bwidth".encode(), b"back\\slash", b"..hidden", b"...", b" leading", b"trailing ", b"-rf", b"con", b"a:b", b"quote\"'", b"%2e%2e%2f", b"$(id)", b"`id`", b"x" * 255, "e\u0301".encode(), "\u00e9".encode(), b"same", b"SAME"]
for name in names:
    with open(b"/out/" + name, "wb") as file:
        file.write(b"x")
deep = b"/out"
for level in range(200):
    deep += b"/d"
    os.mkdir(deep)
open(deep + b"/deep", "w").close()
print(len(names))
