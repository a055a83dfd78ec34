"""The library a device or an enrolment station imports."""
