"""What MLflow runs to load the registered model: code, so that nothing is unpickled."""

import mlflow

from wertune.serving.pyfunc import TranscriptionModel

mlflow.models.set_model(TranscriptionModel())
