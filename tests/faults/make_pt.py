"""A .pt file as torch.save writes it (zip, protocol 2), of the tensors of MODEL_DIR/model.safetensors, without PyTorch:
pickle is given modules that only have the names."""
import collections, io, json, os, pickle, struct, sys, types, zipfile
torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
def _rebuild_tensor_v2(*_): raise NotImplementedError
_rebuild_tensor_v2.__module__ = "torch._utils"; utils._rebuild_tensor_v2 = _rebuild_tensor_v2
class FloatStorage: pass
class HalfStorage: pass
for kind in (FloatStorage, HalfStorage): kind.__module__ = "torch"; setattr(torch, kind.__name__, kind)
torch._utils = utils; KINDS = {"F32": (FloatStorage, 4), "F16": (HalfStorage, 2)}
class Storage:
    def __init__(self, key, kind, count): self.key, self.kind, self.count = key, kind, count
class Tensor:
    def __init__(self, storage, shape): self.storage, self.shape = storage, tuple(shape)
    def __reduce__(self):
        strides, n = [], 1
        for side in reversed(self.shape): strides.insert(0, n); n *= side
        return _rebuild_tensor_v2, (self.storage, 0, self.shape, tuple(strides), False, collections.OrderedDict())
class Pickler(pickle.Pickler):
    def persistent_id(self, it): return ("storage", it.kind, it.key, "cpu", it.count) if isinstance(it, Storage) else None
def make(folder):
    raw = open(os.path.join(folder, "model.safetensors"), "rb").read()
    size = struct.unpack("<Q", raw[:8])[0]; header = json.loads(raw[8:8 + size]); data = raw[8 + size:]
    state, files = collections.OrderedDict(), []
    for key, (name, about) in enumerate((n, a) for n, a in header.items() if n != "__metadata__"):
        kind, width = KINDS[about["dtype"]]
        begin, end = about["data_offsets"]; files.append((f"archive/data/{key}", data[begin:end]))
        state[name] = Tensor(Storage(str(key), kind, (end - begin) // width), about["shape"])
    known = {n: sys.modules.get(n) for n in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try: out = io.BytesIO(); Pickler(out, protocol=2).dump(state)
    finally:
        for name, module in known.items():
            if module is None: del sys.modules[name]
            else: sys.modules[name] = module
    b = io.BytesIO()
    with zipfile.ZipFile(b, "w", zipfile.ZIP_STORED) as z:
        for name, part in [("archive/data.pkl", out.getvalue()), ("archive/byteorder", b"little")] + files + [("archive/version", b"3\n")]: z.writestr(name, part)
    return b.getvalue()
if __name__ == "__main__": open(sys.argv[2], "wb").write(make(sys.argv[1]))
