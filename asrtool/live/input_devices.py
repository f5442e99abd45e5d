"""Devices that record, by PortAudio, which the package sounddevice brings to Python."""

import importlib
from typing import Any

from asrtool.errors import UserError

NO_DEVICE = "no input device: connect a microphone or give this user access to it; --pcm and --wav need none"


def open_sounddevice() -> Any:
    """Returns the package sounddevice, which has no types. Raises UserError if it or PortAudio is missing."""
    try:
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise UserError("the microphone needs sounddevice: pip install 'asrtool[microphone]'") from error
    except OSError as error:  # on Linux the wheel has no PortAudio
        hint = "install it, e.g. apt install libportaudio2, dnf install portaudio or pacman -S portaudio"
        raise UserError(f"the microphone needs the PortAudio library ({error}); {hint}") from error


def input_devices() -> list[str]:
    """Returns a line for each device that records: * if it is the default, number, name, channels, sampling rate.

    Raises UserError if there is none.
    """
    sounddevice = open_sounddevice()
    try:
        devices = [device for device in sounddevice.query_devices() if device["max_input_channels"] > 0]
        default = _default_device(sounddevice)
        interfaces = sounddevice.query_hostapis()
    except sounddevice.PortAudioError as error:
        raise UserError(f"the input devices cannot be listed: {error}") from error
    if not devices:
        raise UserError(NO_DEVICE)
    return [_describe(device, interfaces[device["hostapi"]]["name"], default) for device in devices]


def _default_device(sounddevice: Any) -> int | None:
    try:
        return sounddevice.query_devices(kind="input")["index"]
    except (sounddevice.PortAudioError, ValueError):
        return None


def _describe(device: Any, interface: str, default: int | None) -> str:
    mark = "*" if device["index"] == default else " "
    count = device["max_input_channels"]
    channels = f"{count} channel{'s' * (count > 1)}"
    rate = f"{device['default_samplerate']:.0f} Hz"
    return f"{mark} {device['index']:3}  {device['name']}, {interface} ({channels}, {rate})"


def find_device(sounddevice: Any, device: str | None) -> dict[str, Any]:
    """Returns what sounddevice knows of a device: its number, a part of its name, or None for the system's default.

    Raises UserError if it is not there, or does not record.
    """
    number = int(device) if device is not None and device.isascii() and device.isdecimal() else device
    try:
        return dict(sounddevice.query_devices(number, kind="input"))
    except (sounddevice.PortAudioError, ValueError, OverflowError) as error:
        if device is None:
            raise UserError(NO_DEVICE) from error
        reason = "; ".join(str(error).splitlines())
        raise UserError(f"--input-device {device}: {reason} (`asrtool stream --list-devices` lists them)") from error
