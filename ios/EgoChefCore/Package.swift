// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "EgoChefCore",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "EgoChefCore", targets: ["EgoChefCore"]),
    ],
    targets: [
        .target(
            name: "EgoChefCore",
            swiftSettings: [.enableExperimentalFeature("StrictConcurrency")]
        ),
        .testTarget(
            name: "EgoChefCoreTests",
            dependencies: ["EgoChefCore"],
            resources: [.copy("Golden")]
        ),
    ]
)
