"""The page in the browser (`marigold app`): Gradio around the pipelines, for people and, over HTTP, for programs."""
