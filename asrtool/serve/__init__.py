"""`asrtool serve`: live streams over WebSocket, uploads over HTTP.

server.py          starts the server, and runs it to its end
listening.py       its address, TLS, warnings if others can reach it
ending.py          how signals end it
settings.py        the model, address, and access that the server is started with
limits.py          all limits, with their defaults
application.py     the routes
service.py         the state that the routes share
errors.py          what a client is told when a request is refused
access.py          token, Origin, and headers of all answers
connections.py     time-outs of connections below HTTP and WebSocket
stream_socket.py   /v1/stream: one connection from its start to its end
stream_reader.py   the audio of a connection
stream_clock.py    the limits of time of a stream
messages.py        the messages that begin and end a stream
outbox.py          results that wait to be sent to one client
arrival_times.py   the delay from audio to its result
uploads.py         bodies of uploads: received, bounded, spooled
transcription.py   POST /v1/transcribe
openai_api.py      POST /v1/audio/transcriptions, GET /v1/models
upload_pool.py     the processes that recognise uploads, seen from the server
upload_worker.py   one of these processes
kept_audio.py      the folder of --keep-audio
model_info.py      GET /v1/model
metrics.py         GET /metrics
openapi.py         GET /openapi.json
json_logs.py       log lines as JSON
packages.py        what must be installed
"""
