// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @dev Test double: a wallet that is a contract and answers for its owner's signatures (EIP-1271).
contract ContractWallet is IERC1271 {
    enum Answer {
        Honest,
        WrongMagic,
        Revert
    }

    address private immutable _owner;
    Answer private _answer;

    error Refused();

    constructor(address owner) {
        _owner = owner;
    }

    function setAnswer(Answer answer) external {
        _answer = answer;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        require(_answer != Answer.Revert, Refused());
        if (_answer == Answer.WrongMagic) return 0xffffffff;
        return ECDSA.recover(hash, signature) == _owner ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}
