# More files than a result may have.
for at in range(1500):
    open(f"/out/f{at:04}", "w").close()
print("left")
