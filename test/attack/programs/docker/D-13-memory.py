# Takes memory until something gives.
print("begun", flush=True)
held = []
while True:
    held.append(bytearray(b"x") * (8 << 20))
