# docker build -t optimizer-experiments . && docker run --rm optimizer-experiments
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /workspace
COPY . .
RUN make setup
CMD ["make", "train"]
