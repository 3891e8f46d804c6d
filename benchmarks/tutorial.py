"""The loop of the tutorials, written out: the reference of ``benchmarks/speed.py``.

    python benchmarks/tutorial.py lightcnn datasets

torchvision's data set and transforms image by image, a DataLoader, fp32, SGD 0.01 with momentum,
the loss read back for the running mean, one epoch and a test. Nothing of the program is used but
the network. It trains on as many images as ``train.py`` has in its training split.
"""

import pickle
import sys
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.customcnn import CustomCNN
from models.lightcnn import LightCNN


class Cifar10(Dataset):
    """``torchvision.datasets.CIFAR10`` without its checksums, so that copies will do."""

    def __init__(self, root, train, transform):
        names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
        parts = []
        for name in names:
            with (Path(root) / "cifar-10-batches-py" / name).open("rb") as file:
                parts.append(pickle.load(file, encoding="latin1"))
        images = numpy.vstack([part["data"] for part in parts])
        self.images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        self.labels = [label for part in parts for label in part["labels"]]
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


name, root = sys.argv[1:3]
if name == "lightcnn":
    model, dataset, num_train = LightCNN(1, 10, (28, 28)), datasets.MNIST, 55_000
    mean, std = (0.1307,), (0.3081,)
else:
    model, dataset, num_train = CustomCNN(3, 10, (32, 32)), Cifar10, 45_000
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
train_set = dataset(root, train=True, transform=transform)
train_set = Subset(train_set, range(int(sys.argv[3]) if len(sys.argv) > 3 else num_train))
test_set = dataset(root, train=False, transform=transform)
train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
test_loader = DataLoader(test_set, batch_size=500)

optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
criterion = nn.CrossEntropyLoss()
model.train()
running_loss = 0.0
for images, labels in train_loader:
    optimizer.zero_grad()
    loss = criterion(model(images), labels)
    loss.backward()
    optimizer.step()
    running_loss += loss.item()

model.eval()
correct = 0
with torch.no_grad():
    for images, labels in test_loader:
        correct += (model(images).argmax(1) == labels).sum().item()
print(f"loss {running_loss / len(train_loader):.4f}")
print(f"test/accuracy {correct / len(test_set):.4f}")
