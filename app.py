"""One Basin: two trained networks, lined up, looked at, and merged. `streamlit run app.py`."""

from pages.shared import frame

frame.main()
