"""Pure columnar logic: functions on Arrow tables; no Beam, no clock, no environment."""
