"""PyTorch, LightGBM and FAISS each bring an OpenMP runtime: in one process, side by side, none disturbs another."""

import subprocess
import sys

# In a process of its own, with as many threads as the runtimes want, and in both orders of import.
SCRIPT = """
import sys
for name in sys.argv[1].split(","):
    __import__(name)
from concurrent.futures import ThreadPoolExecutor
import faiss, lightgbm as lgb, numpy as np, torch
from ranker.compiled_network import CompiledNetwork
from ranker.forest import Forest
from ranker.network import Network

rng = np.random.default_rng(0)
rows = rng.normal(size=(500, 20)).astype(np.float32)
booster = lgb.train({"verbosity": -1, "num_leaves": 15}, lgb.Dataset(rows, rows[:, 0] > 0), 20)
forest = Forest.of(booster)
index = faiss.index_factory(20, "HNSW16", faiss.METRIC_INNER_PRODUCT)
index.add(rows)
layer = torch.nn.Linear(20, 300)
CompiledNetwork.of(Network(20, 8))


def scored(_):
    with torch.inference_mode():
        dense = layer(torch.from_numpy(rows)).sum(1).numpy()
    return booster.predict(rows, raw_score=True), forest.score(rows), index.search(rows[:50], 10)[0], dense


first = scored(0)
np.testing.assert_array_equal(first[0], first[1])
with ThreadPoolExecutor(4) as pool:
    for made in pool.map(scored, range(40)):
        for one, other in zip(made, first):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
print("agreed")
"""


def test_all_load_and_score_side_by_side() -> None:
    for order in ("torch,lightgbm,faiss,numba", "faiss,numba,lightgbm,torch"):
        told = subprocess.run([sys.executable, "-c", SCRIPT, order], capture_output=True, text=True, timeout=120)
        assert (told.returncode, told.stdout) == (0, "agreed\n"), told.stderr
