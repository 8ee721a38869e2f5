"""Files in, arrays; maps out, pictures and meshes. Knows neither checkpoints nor networks."""
