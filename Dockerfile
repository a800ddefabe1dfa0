# JupyterLab with the course on port 8888: docker build -t hfnb . && docker run --rm -p 127.0.0.1:8888:8888 --shm-size=1g hfnb
# Not yet built: no Docker was at hand. MPI engines share memory in /dev/shm, of which Docker gives 64 MB by default.
FROM python:3.12-slim
RUN useradd --create-home student
WORKDIR /home/student/hfnb
COPY --chown=student . .
USER student
RUN python tools/bootstrap.py setup
RUN .venv/bin/python -m hfnb.datasets || echo "MNIST is not here: lessons that need it will say so"
EXPOSE 8888
CMD ["python", "tools/bootstrap.py", "lab", "--no-browser", "--ip=0.0.0.0"]
