"""Stage 6: monitors as code: which series of which models are judged how, and who is told.

settings.py is what a user writes, defaults.py what exists without, explain.py a monitor in a sentence, rules.py the
monitors of one model version at work.
"""
