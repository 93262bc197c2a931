"""Evidently's drift preset over two parquet files, for bench_drift_cost.py, in an environment of its own.

Prints JSON: its version, the seconds of each run, and each column's value by method. It imports nothing of ours.
"""

import json
import sys
import time
import warnings

import evidently
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

warnings.simplefilter("ignore")
reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
seconds = []
for _ in range(int(sys.argv[3])):
    start = time.process_time()
    result = Report([DataDriftPreset()]).run(current, reference).dict()
    seconds.append(time.process_time() - start)
values = {}
for metric in result["metrics"]:
    config = metric["config"]
    if "column" in config:
        values[config["column"]] = [config["method"], float(metric["value"])]
print(json.dumps({"version": evidently.__version__, "seconds": seconds, "values": values}))
