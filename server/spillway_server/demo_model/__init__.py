"""The bundled demo model: document generator, training, export, evaluation and the weights themselves."""
