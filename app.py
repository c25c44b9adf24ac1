"""One Basin: two trained networks, lined up, looked at, and merged. `streamlit run app.py`."""

import streamlit as st
from starlette.middleware import Middleware

from pages.shared import frame
from pages.shared.doors import AllowedHosts, SafeHeaders
from pages.shared.upload_limits import UploadLimits, housekeeping

if __name__ == "__main__":  # as Streamlit runs it, again for every page that a reader looks at
    frame.main()
else:  # as the server loads it, once
    checks = [Middleware(kind) for kind in (SafeHeaders, AllowedHosts, UploadLimits)]
    app = st.App(__file__, middleware=checks, lifespan=housekeeping)
