"""A comparison on a cluster: ``python examples/parallel.py dask`` or ``ray``, here on this machine's own cores."""

import sys

from joblib import parallel_config

from metaverify import compare, load_digits_log


def start(backend: str) -> None:
    """Start workers, or give the address of a scheduler that has some: Client("tcp://…"), ray.init("ray://…")."""
    if backend == "dask":
        from distributed import Client

        Client(n_workers=2, threads_per_worker=1)
    else:
        import ray
        from ray.util.joblib import register_ray

        register_ray()
        ray.init(num_cpus=2)


if __name__ == "__main__":
    start(sys.argv[1])
    with parallel_config(sys.argv[1], n_jobs=2):
        found = compare(load_digits_log(), ["default", "thresholds"], budgets=[2.0, 4.0, 8.0])
    for method in found.methods:
        print(f"{method.name}: gain {100 * method.gain.mean:.2f} points")  # the same with every back end
