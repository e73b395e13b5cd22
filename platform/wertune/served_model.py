"""What MLflow runs to load the registered model: code, so that nothing is unpickled."""

import mlflow

from wertune.serve import TranscriptionModel

mlflow.models.set_model(TranscriptionModel())
