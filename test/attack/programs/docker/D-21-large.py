# More bytes than a result may have, in files that each might have passed.
for at in range(4):
    try:
        with open(f"/out/f{at}", "wb") as file:
            file.write(bytes([65 + at]) * 400_000)
    except OSError as error:
        print(at, error.strerror)
print("left")
