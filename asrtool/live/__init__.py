"""Live audio: microphone, pipes and files in real time, and the engine that recognises many streams at once."""
