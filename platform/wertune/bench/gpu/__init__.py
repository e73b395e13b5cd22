"""`python -m wertune.bench.gpu`: what a GPU makes of training and writing, in one table; of a CPU in small sizes, too.

By random weights and made features, so that it needs neither a download nor MLflow, Ray or torchaudio: torch,
transformers, peft, bitsandbytes, soundfile, jiwer, pydantic and numpy will do, and pytest for tests/gpu.
"""
